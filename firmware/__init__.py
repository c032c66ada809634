"""What a real board's firmware does: SBI, the device tree, loading the kernel."""
