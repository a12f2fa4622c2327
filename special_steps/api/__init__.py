"""What Python programs and notebooks call: above the steps, which it runs."""
