"""Running on a CPU: what this machine is, loaded object code, and the thread pool of the process."""
