"""Ways into tools that people use anyway. Each module imports its tool only where it is called."""
