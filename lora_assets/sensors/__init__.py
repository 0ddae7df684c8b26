"""What starts runs by itself."""

import warnings

from dagster import BetaWarning

# Binding resources to a sensor makes Dagster warn of a parameter that nobody gave.
warnings.filterwarnings("ignore", category=BetaWarning, message=".*SensorDefinition.*")
