"""Running on a CPU: this machine, loaded object code, and the thread pools of the process."""
