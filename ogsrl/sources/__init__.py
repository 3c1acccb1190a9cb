"""Where trajectories come from: every source gives the trajectory table, a part at a time.

Called by the ingest stage. A source maps names, types and time; it never judges values (contracts
do) and never drops a row without counting it.
"""

from ogsrl.sources.reading import Reading, SourceSettings, Warned, open_source

__all__ = ["Reading", "SourceSettings", "Warned", "open_source"]
