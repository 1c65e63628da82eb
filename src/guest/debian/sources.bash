# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # variables of build
#
# sources.bash - what the host's apt configuration says about the Debian archive.
#
# find_archive sets `suite` (bookworm, trixie, ...) and `sources` (deb822 stanzas for that suite,
# its updates and its security suite, with the host's mirrors and Signed-By). It exits with
# status 6 when there is no Debian archive to build from. Both formats of apt are read: one-line
# .list files and deb822 .sources files.
#
# A third-party archive may well use Debian's suite names, so an entry counts as Debian's when
# apt's downloaded Release file says "Origin: Debian", or, where none was downloaded yet, when
# its address looks like a Debian mirror and its key is not somebody else's.

APT_ETC=${APT_ETC:-/etc/apt}
APT_LISTS=${APT_LISTS:-/var/lib/apt/lists}
OS_RELEASE=${OS_RELEASE:-/etc/os-release}

find_archive() {
	local codename='' id='' entries
	if [[ -r $OS_RELEASE ]]; then
		id=$(sed -n 's/^ID=//p' "$OS_RELEASE" | tr -d \"\')
		codename=$(sed -n 's/^VERSION_CODENAME=//p' "$OS_RELEASE" | tr -d \"\')
	fi
	[[ -d $APT_ETC ]] || lacks "This host (${id:-unknown}) has no apt: the debian flavor needs a Debian host." \
		"Choose another one: k3s-vm configure FLAVOR=nixos, or FLAVOR=cloud."

	entries=$(read_entries)
	suite=$(choose_suite "$codename" <<<"$entries")
	[[ -n $suite ]] || lacks "The apt configuration in $APT_ETC names no Debian archive (host: ${id:-unknown} $codename)." \
		"Add one to $APT_ETC/sources.list.d, or choose another guest: k3s-vm configure FLAVOR=nixos, or FLAVOR=cloud."
	sources=$(write_stanzas "$suite" <<<"$entries")
}

# read_entries - one line a URI and suite: URI, suite, components, Signed-By, Trusted; separated by
# tabs, newlines of an inline key as \036.
read_entries() {
	local list=() deb822=() debian
	[[ -r $APT_ETC/sources.list ]] && list+=("$APT_ETC/sources.list")
	local file
	for file in "$APT_ETC"/sources.list.d/*.list; do [[ -r $file ]] && list+=("$file"); done
	for file in "$APT_ETC"/sources.list.d/*.sources; do [[ -r $file ]] && deb822+=("$file"); done
	debian=$(grep -sl '^Origin: Debian$' "$APT_LISTS"/*Release | sed 's|.*/||' || true)
	{
		# An empty list of files would make awk read its standard input.
		((${#list[@]})) && one_line_entries "${list[@]}"
		((${#deb822[@]})) && deb822_entries "${deb822[@]}"
		true
	} | debian_entries "$debian"
}

one_line_entries() {
	awk -v arch="$arch" '
	$1 == "deb" {
		line = $0; sub(/[ \t]*#.*/, "", line); sub(/^[ \t]*deb[ \t]+/, "", line)
		options = ""; signed = ""; trusted = ""; skip = 0
		if (line ~ /^\[/) {
			options = substr(line, 2, index(line, "]") - 2)
			line = substr(line, index(line, "]") + 1)
			n = split(options, option, /[ \t]+/)
			for (i = 1; i <= n; i++) {
				value = option[i]; sub(/^[^=]*=/, "", value)
				if (option[i] ~ /^signed-by=/) signed = value
				if (option[i] ~ /^trusted=/) trusted = value
				if (option[i] ~ /^arch=/ && ("," value ",") !~ ("," arch ",")) skip = 1
			}
		}
		n = split(line, word, /[ \t]+/); first = (word[1] == "") ? 2 : 1
		components = ""
		for (i = first + 2; i <= n; i++) if (word[i] != "") components = components (components == "" ? "" : " ") word[i]
		gsub(/,/, " ", signed)
		if (!skip) print word[first] "\t" word[first + 1] "\t" components "\t" signed "\t" trusted
	}' "$@"
}

deb822_entries() {
	awk -v arch="$arch" '
	function flush(   i, j, nu, ns, uri, name) {
		if (field["uris"] != "" && (" " field["types"] " ") ~ / deb / && tolower(field["enabled"]) !~ /^(no|false|0|off)$/ &&
		    (field["architectures"] == "" || (" " field["architectures"] " ") ~ (" " arch " "))) {
			nu = split(field["uris"], uri, /[ \t\036]+/); ns = split(field["suites"], name, /[ \t\036]+/)
			for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++) if (uri[i] != "" && name[j] != "")
				print uri[i] "\t" name[j] "\t" field["components"] "\t" field["signed-by"] "\t" field["trusted"]
		}
		split("", field); key = ""
	}
	FNR == 1 { flush() }
	/^#/ { next }
	/^[ \t]*$/ { flush(); next }
	/^[ \t]/ { if (key != "") field[key] = field[key] "\036" $0; next }
	{
		key = tolower($0); sub(/:.*/, "", key)
		value = $0; sub(/^[^:]*:[ \t]*/, "", value); sub(/[ \t]+$/, "", value)
		field[key] = value
	}
	END { flush() }' "$@"
}

# debian_entries FILES - keeps the entries of the Debian archive; FILES are the names of downloaded
# Release files whose origin is Debian.
debian_entries() {
	awk -F '\t' -v files="$1" -v lists="$APT_LISTS" '
	BEGIN { n = split(files, f, "\n"); for (i = 1; i <= n; i++) known[f[i]] = 1 }
	function exists(path,   line, ok) { ok = (getline line < path) >= 0; close(path); return ok }
	{
		if ($1 ~ /^cdrom:/ || (" " $3 " ") !~ / main /) next
		base = $1; sub(/^[a-z+]+:\/*/, "", base); sub(/\/$/, "", base); gsub(/\//, "_", base)
		stem = base "_dists_" $2; gsub(/\//, "_", stem)
		if ((stem "_InRelease") in known || (stem "_Release") in known) { print; next }
		if (exists(lists "/" stem "_InRelease") || exists(lists "/" stem "_Release")) next
		if ($4 != "" && $4 !~ /debian-archive|BEGIN PGP/) next
		if ($1 ~ /\/debian(-security)?\/?$/ || $1 ~ /^mirror.*debian/) print
	}'
}

# The suite is the one that the host runs; a host on "stable" or "testing" has no entry of that
# name, so then it is the first one that is a suite of its own (no -updates, no /updates).
choose_suite() {
	awk -F '\t' -v codename="$1" '
	$2 == codename { best = codename }
	first == "" && $2 !~ /[-\/]/ { first = $2 }
	END { print best != "" ? best : first }'
}

write_stanzas() {
	awk -F '\t' -v suite="$1" '
	$2 == suite || $2 == suite "-updates" || $2 == suite "-security" || $2 == suite "/updates" {
		signed = $4; gsub(/\036/, "\n", signed)
		print "Types: deb\nURIs: " $1 "\nSuites: " $2 "\nComponents: main"
		if (signed != "") print "Signed-By: " signed
		if ($5 != "") print "Trusted: " $5
		print ""
	}'
}

# apt_options - the host's proxies, certificates and the like, one option a line in apt's syntax.
# mmdebstrap gives apt a configuration of its own, which would lose them.
apt_options() {
	apt-config dump |
		grep -E '^Acquire::(http|https|ftp|tor|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date|Max-ValidTime|Queue-Mode)\b.* "[^"]' || true
}

# fetch_packages TREE DEBS - unpacks the packages of the list to TREE, the kernel's package to DEBS.
fetch_packages() {
	local tree=$1 debs=$2 option mode=chrootless
	local options=(--aptopt='Acquire::Languages "none"' --aptopt='APT::Sandbox::User "root"')
	while IFS= read -r option; do
		[[ -n $option ]] && options+=(--aptopt="$option")
	done < <(apt_options)
	# Nothing is run in the tree, so root needs no chroot either; mmdebstrap warns root off chrootless.
	((EUID == 0)) && mode=root
	mkdir -p "$debs"
	printf '%s\n' "$sources" >"$work/debian.sources"

	# The packages of bookworm still have files in /bin and /lib: the links must be there first.
	# shellcheck disable=SC2016 # $1 is expanded by the hook's shell
	local merge='mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/usr/lib64"
		for d in bin sbin lib lib64; do ln -s "usr/$d" "$1/$d"; done'
	# The kernel's package would bring initramfs-tools with it. The meta package names the newest one.
	export GUEST_DEBS=$debs
	# shellcheck disable=SC2016
	local kernel='cd "$GUEST_DEBS" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
		image=$(apt-cache depends --important linux-image-cloud-'$arch' | sed -n "s/.*Depends: \(linux-image-[0-9].*\)/\1/p" | head -n 1)
		apt-get download "$image"'
	supervised mmdebstrap --mode="$mode" --variant=extract --format=directory --architectures="$arch" \
		--include="$(package_list)" "${options[@]}" \
		--setup-hook="$merge" --extract-hook="$kernel" \
		"$suite" "$tree" "$work/debian.sources"
}

package_list() {
	sed -e 's/#.*//' "$here/packages" | tr -s ' \t\n' ',' | sed -e 's/^,//' -e 's/,$//'
}
