"""The job page: what a person sees of the queue. Server-rendered; everything can be read without JavaScript."""
