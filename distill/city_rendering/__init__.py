"""Pictures of a city of blocks: composited exactly, streamed under a byte budget, and how good they are."""
