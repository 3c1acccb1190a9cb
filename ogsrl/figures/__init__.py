"""Every plot; one module a stage, `style` is shared. Import the module of the stage."""
