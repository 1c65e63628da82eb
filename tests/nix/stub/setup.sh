# The builder of every derivation of the stub: stdenv's phases as far as they are used here, with the host's own tools.
# shellcheck shell=bash disable=SC1091,SC2154,SC2086,SC2068
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/homeless-shelter
if [ -e .attrs.sh ]; then
  . ./.attrs.sh
  out=${outputs[out]}
fi
export out
# Lists are arrays with structured attributes, else words of a string.
for input in ${nativeBuildInputs[@]-}; do
  PATH=$input/bin:$PATH
  if [ -e "$input/nix-support/setup-hook" ]; then . "$input/nix-support/setup-hook"; fi
done
runHook() { eval "${!1-}"; }
if [ -n "${buildCommand-}" ]; then
  eval "$buildCommand"
  exit
fi
cp -R "$src" source
chmod -R u+w source
cd source
if [ -n "${buildPhase-}" ]; then eval "$buildPhase"; else make ${makeFlags-} -j"${NIX_BUILD_CORES:-1}"; fi
if [ -n "${installPhase-}" ]; then eval "$installPhase"; else make ${makeFlags-} install; fi
eval "${postFixup-}"
