# shellcheck shell=bash
# shellcheck disable=SC2154,SC2164 # variables and set -e of build
#
# archive.bash - fetches from the Debian archive that the host's apt configuration names.
#
# apt gets a configuration folder of its own, made from the host's: its Debian entries, with deb-src added, and
# its keys. So lists and packages go to the build's folder, and no root is needed. Both of apt's formats are read:
# one-line .list files and deb822 .sources files.

APT_ETC=${APT_ETC:-/etc/apt}
OS_RELEASE=${OS_RELEASE:-/etc/os-release}

# The suites whose package kubernetes is the version that all this was made for.
readonly known_suites='bookworm'

# find_archive - sets suite, and stanzas: deb822 text of the host's Debian entries.
find_archive() {
	local id codename
	id=$(sed -n 's/^ID=//p' "$OS_RELEASE" 2>/dev/null | tr -d \"\')
	codename=$(sed -n 's/^VERSION_CODENAME=//p' "$OS_RELEASE" 2>/dev/null | tr -d \"\')
	[[ $id == debian && -d $APT_ETC ]] ||
		lacks "The offline payload is built on Debian only, and this host is ${id:-unknown}." \
			"Give a K3s release or binary instead: k3s-vm configure K3S_VERSION=PATH."
	[[ " $known_suites " == *" $codename "* ]] ||
		lacks "The offline payload needs Kubernetes $kubernetes, which Debian has in $known_suites; this host is $codename." \
			"Give a K3s release or binary instead: k3s-vm configure K3S_VERSION=PATH."
	suite=$codename
	stanzas=$(entries | debian_stanzas)
	[[ -n $stanzas ]] || lacks "The apt configuration in $APT_ETC names no Debian $suite archive."
}

# entries - one line a URI and suite: URI, suite, components, Signed-By; tabs between, inline keys' newlines as \036.
entries() {
	local file
	for file in "$APT_ETC/sources.list" "$APT_ETC"/sources.list.d/*.list; do
		[[ -r $file ]] && one_line_entries "$file"
	done
	for file in "$APT_ETC"/sources.list.d/*.sources; do
		[[ -r $file ]] && deb822_entries "$file"
	done
	return 0
}

one_line_entries() {
	awk '
	$1 == "deb" {
		sub(/[ \t]*#.*/, ""); sub(/^[ \t]*deb[ \t]+/, "")
		signed = ""
		if (/^\[/) {
			n = split(substr($0, 2, index($0, "]") - 2), option, /[ \t]+/)
			for (i = 1; i <= n; i++) if (sub(/^signed-by=/, "", option[i])) signed = option[i]
			$0 = substr($0, index($0, "]") + 1)
		}
		components = ""
		for (i = 3; i <= NF; i++) components = components " " $i
		gsub(/,/, " ", signed)
		print $1 "\t" $2 "\t" components "\t" signed
	}' "$1"
}

deb822_entries() {
	awk '
	function flush(   i, j, nu, ns, uri, name) {
		if ((" " field["types"] " ") ~ / deb / && tolower(field["enabled"]) !~ /^(no|false|0|off)$/) {
			nu = split(field["uris"], uri, /[ \t\036]+/); ns = split(field["suites"], name, /[ \t\036]+/)
			for (i = 1; i <= nu; i++) for (j = 1; j <= ns; j++) if (uri[i] != "" && name[j] != "")
				print uri[i] "\t" name[j] "\t" field["components"] "\t" field["signed-by"]
		}
		split("", field); key = ""
	}
	/^#/ { next }
	/^[ \t]*$/ { flush(); next }
	/^[ \t]/ { if (key != "") field[key] = field[key] "\036" $0; next }
	{
		key = tolower($0); sub(/:.*/, "", key)
		value = $0; sub(/^[^:]*:[ \t]*/, "", value); sub(/[ \t]+$/, "", value)
		field[key] = value
	}
	END { flush() }' "$1"
}

# debian_stanzas - of the entries on standard input, those of Debian's archive for this suite. Others use the same
# suite names: theirs have an address, or a key, that is not Debian's.
debian_stanzas() {
	awk -F '\t' -v suite="$suite" '
	($2 == suite || $2 == suite "-updates" || $2 == suite "-security" || $2 == suite "/updates") &&
	(" " $3 " ") ~ /[ \t]main[ \t]/ && $1 !~ /^cdrom:/ && $1 ~ /debian/ &&
	($4 == "" || $4 ~ /debian-archive/ || $4 ~ /\036/) {
		print "Types: deb deb-src\nURIs: " $1 "\nSuites: " $2 "\nComponents: main"
		signed = $4; gsub(/\036/, "\n", signed)
		if (signed != "") print "Signed-By: " signed
		print ""
	}'
}

# private_apt COMMAND ARG... - apt-get or apt-cache with the configuration folder of this build. The host's own
# settings (proxies, certificates) hold too: they are read from its apt.conf as always.
private_apt() {
	local command=$1 user
	shift
	user=$(id -un)
	"$command" -qq \
		-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/apt/sources.list.d" \
		-o Dir::State="$work/apt/state" -o Dir::State::status=/var/lib/dpkg/status \
		-o Dir::Cache="$work/apt/cache" -o Acquire::Languages=none -o APT::Sandbox::User="$user" \
		-o Acquire::Retries=3 -o APT::Update::Post-Invoke-Success::= -o APT::Update::Post-Invoke::= "$@"
}

# fetch - brings the source and the programs that are not compiled here to the folder debs.
fetch() {
	local packages=(containerd runc containernetworking-plugins busybox-static golang-github-modern-go-reflect2-dev)
	local source
	mkdir -p "$work/apt/sources.list.d" "$work/apt/state/lists/partial" "$work/apt/cache/archives/partial" "$work/debs"
	printf '%s\n' "$stanzas" >"$work/apt/sources.list.d/debian.sources"
	private_apt apt-get update
	source=$(private_apt apt-cache showsrc --only-source kubernetes | sed -n "s/^Version: \(.*really\)\?\($kubernetes-.*\)/\1\2/p" | sort -V | tail -n 1)
	[[ -n $source ]] ||
		lacks "The Debian archive of this host has no source package of Kubernetes $kubernetes."
	cd "$work/debs"
	private_apt apt-get --download-only --only-source source "kubernetes=$source"
	private_apt apt-get download "${packages[@]}"
}
