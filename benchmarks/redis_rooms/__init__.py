"""Rooms of several processes over one Redis: what a message costs, beside peers that do the same."""
