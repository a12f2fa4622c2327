"""Inner loops in C++ for the CPU."""
