"""How work gets onto Ray, and the only room that imports it. It knows nothing of sound."""
