"""One short module a DVC stage: read parameters and files, call ogsrl, write files. No logic."""
