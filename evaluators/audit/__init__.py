"""Does an export do what its study says? Reloaded in a clean process, and measured again."""
