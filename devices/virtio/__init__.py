"""virtio over MMIO: the transport (mmio), split virtqueues (queue), and one module or package per device."""
