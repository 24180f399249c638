"""What the tests share: tiny random models, and ways to break a good model folder."""
