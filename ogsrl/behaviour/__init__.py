"""The clinicians' policy b(a|s): fitted on training, calibrated on calibration patients.

Called by the stage behaviour, the guardian, training, evaluation and query: `fitting.fit` makes a
`policy.Behaviour`, whose `distribution` gives samples, modes and densities. Import the module:
reading parameters must load neither torch nor scikit-learn.
"""
