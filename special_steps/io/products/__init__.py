"""Products as their makers deliver them: a module each, with `files_of` (by names) and `open_product`."""
