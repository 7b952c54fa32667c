"""The parts of ``kernels.jit``: the compiler in its child process, the store, the launcher."""
