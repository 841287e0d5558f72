"""Back ends that run one benchmark on one kind of device."""
