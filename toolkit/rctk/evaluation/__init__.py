"""The judge: projects what attacks propose, classifies it again with the model under test, and counts."""
