"""What a Python plugin for Cardcage imports."""
