"""The clinicians' policy b(a|s): fitted on training, calibrated on calibration patients."""
