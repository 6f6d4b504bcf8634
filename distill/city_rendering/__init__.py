"""Pictures of a city of blocks: composited exactly, streamed under a byte budget, and its joint fine-tune."""
