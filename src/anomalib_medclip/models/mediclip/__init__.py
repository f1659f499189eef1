"""MediCLIP: anomalies made up on normal images teach adapters and prompts."""
