# Sourced by examples/quickstart.sh and tests/run.sh: everything between a bare Debian or Ubuntu machine and an installed
# package in .venv. A second run finds its stamps and returns at once.

# Releases that the project was last run with. Another torch build (CPU only, another CUDA) can be named instead.
torch_requirement="${PRISMAQUANT_TORCH:-torch==2.13.0}"

# Threads that wait for work sleep instead of spinning: on a busy machine the difference is seconds or minutes.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

# system_packages PACKAGE... : installs what is missing as root, otherwise prints the one line to run and exits 3.
system_packages() {
  local missing=()
  for package in "$@"; do has_package "$package" || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    say "System packages are missing. Run this once, then start again:"
    echo "sudo apt-get update && sudo apt-get install -y ${missing[*]}"
    exit 3
  fi
  say "Installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
}

# What a package is needed for is looked at, not whether it is installed: any other source of it will do.
has_package() {
  case "$1" in
    python3) command -v python3 >/dev/null ;;
    python3-venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
    python3-dev) python3 -c 'import os, sysconfig as s; assert os.path.exists(s.get_path("include") + "/Python.h")' 2>/dev/null ;;
    g++) command -v g++ >/dev/null ;;
    clang) command -v clang++ >/dev/null ;;
    g++-aarch64-linux-gnu) command -v aarch64-linux-gnu-g++ >/dev/null ;;
    qemu-user) command -v qemu-aarch64 >/dev/null ;;
    catch2) has_header catch2/catch.hpp || has_header catch2/catch_test_macros.hpp ;;
    libeigen3-dev) has_header eigen3/Eigen/Core || has_header Eigen/Core ;;
    nlohmann-json3-dev) has_header nlohmann/json.hpp ;;
    libxtensor-dev) has_header xtensor/xarray.hpp || has_header xtensor/containers/xarray.hpp ;;
  esac
}
has_header() { echo "#include <$1>" | g++ -std=c++20 -fsyntax-only -x c++ - 2>/dev/null; }

# python_environment EXTRA : .venv with the package, its compiled module and the packages of one extra.
python_environment() {
  local extra="$1"
  if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "Python 3.11 or newer is needed, this is $(python3 --version)"
    exit 3
  fi
  [ -x .venv/bin/python ] || python3 -m venv .venv
  local inputs stamp=".venv/prismaquant-$extra.stamp"
  # An editable install knows its modules by name, so their names count as well as the C++ sources.
  inputs="$( (find python -name '*.py' | LC_ALL=C sort; cat pyproject.toml CMakeLists.txt $(find include bindings -type f | LC_ALL=C sort)) | sha256sum) $torch_requirement"
  [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ] && return
  say "Installing the package and what [$extra] needs into .venv"
  local pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet)
  "${pip[@]}" "$torch_requirement"                                            # first, so that nothing else chooses a build
  "${pip[@]}" 'scikit-build-core>=0.11' 'pybind11>=3.0' 'cmake>=3.18' ninja   # the build, without an isolated environment
  PATH="$PWD/.venv/bin:$PATH" "${pip[@]}" --no-build-isolation --editable ".[$extra]"
  echo "$inputs" >"$stamp"
}
