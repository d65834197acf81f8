"""Train a voice from a folder of recordings, and measure what it became."""
