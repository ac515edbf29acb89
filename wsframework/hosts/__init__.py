"""Other servers that accept connections for an App. `guests` has what they share; each host has a package."""
