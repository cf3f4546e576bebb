"""What maintainers run through nox: adopting a project, and starting nox from nothing but Python."""
