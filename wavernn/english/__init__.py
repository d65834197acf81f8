"""English text as words, and words as phones; `wavernn.text` is its public face."""
