"""What a command shows on the terminal: bars, lines, and no false alarm of another package."""
