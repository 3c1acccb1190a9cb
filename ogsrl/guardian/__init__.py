"""The region that data support: what may be recommended, and where the answer is `defer`.

Called by the stage guardian and by everything that acts. A new guardian is a module here and a
line in `members.GUARDIANS`. Import the module: reading parameters must not load torch.
"""
