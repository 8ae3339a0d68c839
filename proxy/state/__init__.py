"""What instances share while they run. Memory serves one process; Redis several."""
