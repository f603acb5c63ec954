from cardcage_sdk import Plugin


class Polite(Plugin):
    def greet(self, name: str) -> str:
        return f"Good day, {name}."
