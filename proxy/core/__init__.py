"""The vocabulary that every room shares. Standard library only; imports nothing of the project but itself."""
