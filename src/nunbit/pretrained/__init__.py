"""Reading and writing dual encoders: folders of `transformers`, of open_clip and our own; OpenAI's archives."""
