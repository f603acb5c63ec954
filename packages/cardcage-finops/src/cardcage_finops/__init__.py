"""The cloud-cost (FinOps) pack of Cardcage. Light on purpose: plugins import its models inside their walls."""
