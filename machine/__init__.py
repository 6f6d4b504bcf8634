"""What the machine gives a run: files written whole, folders, devices, meters, interrupts."""
