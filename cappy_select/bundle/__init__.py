"""A scorer on disk and on the hub: found, read, verified, written. It must never run a model or make one."""
