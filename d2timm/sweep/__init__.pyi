from .hydra_app import main as main
