/// @file
/// The one place that states the version. CMake, the Python build and `prismaquant.__version__` all read it from here.
#pragma once

#define PRISMAQUANT_VERSION_MAJOR 0
#define PRISMAQUANT_VERSION_MINOR 1
#define PRISMAQUANT_VERSION_PATCH 0
#define PRISMAQUANT_VERSION "0.1.0"
