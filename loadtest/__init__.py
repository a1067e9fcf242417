"""Load and faults from outside: talks HTTP only, imports nothing of ours."""
