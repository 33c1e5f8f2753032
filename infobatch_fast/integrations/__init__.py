"""InfoBatch in the trainers that people use. Each module needs its trainer, and nothing here is imported by the package itself."""
