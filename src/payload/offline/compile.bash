# shellcheck shell=bash
# shellcheck disable=SC2154,SC2164 # variables and set -e of build
#
# compile.bash - unpacks and compiles Kubernetes, the k3s front, and what the images need.
#
# Kubernetes is compiled in Go's old way, from a GOPATH: everything is vendored, so no module is ever fetched.

# Without these tags the clouds' provider libraries and the Docker shim would be compiled too: a third of the time
# and of the size, for nothing that this cluster can use.
readonly go_tags=providerless,dockerless

# unpack - lays the source out as GOPATH wants it, and mends what does not go with today's Go.
unpack() {
	local tree=$work/go/src/k8s.io/kubernetes reflect2
	mkdir -p "$work/go/src/k8s.io" "$work/reflect2"
	dpkg-source --no-check -x "$work"/debs/kubernetes_*.dsc "$tree" >"$work/unpack.log" 2>&1 || {
		cat "$work/unpack.log" >&2
		return 1
	}
	# The copy in the source reads Go's internals as they were before 1.18, and panics at the first JSON object.
	reflect2=$tree/vendor/github.com/modern-go/reflect2
	dpkg-deb -x "$work"/debs/golang-github-modern-go-reflect2-dev_*.deb "$work/reflect2"
	rm -f "$reflect2"/*.go "$reflect2"/*.s
	cp "$work"/reflect2/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect2/"
	"$here/patches/apply" "$tree"

	mkdir -p "$tree/cmd/k3s-vm-kubernetes" "$work/go/src/k3s-vm"
	cp "$here"/kubernetes/*.go "$tree/cmd/k3s-vm-kubernetes/"
	cp -r "$here/k3s" "$here/images" "$here/openapi" "$work/go/src/k3s-vm/"
}

# go_build OUT PACKAGE FLAG... - compiles a program, telling every package's name on stdout as it is begun.
go_build() {
	local out=$1 package=$2
	shift 2
	go build -v -trimpath -ldflags "-s -w $ldflags" "$@" -o "$out" "$package" 2>&1
}

compile() {
	local key version ldflags='' total
	export GO111MODULE=off CGO_ENABLED=0 GOPATH=$work/go GOCACHE=${K3S_VM_BUILD_CACHE:-$work/gocache} GOFLAGS=''
	# The generator of the OpenAPI code looks for the standard library's source there.
	GOROOT=$(go env GOROOT)
	export GOROOT
	mkdir -p "$work/bin"
	cd "$work/go/src/k8s.io/kubernetes"
	version=v$kubernetes
	for key in gitVersion=$version gitMajor=1 gitMinor=20 gitTreeState=clean gitCommit=debian; do
		ldflags+=" -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.$key"
		ldflags+=" -X k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version.$key"
	done

	total=$({
		go list -deps ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
		go list -tags "$go_tags" -deps ./cmd/k3s-vm-kubernetes 2>/dev/null
		go list -deps k3s-vm/k3s k3s-vm/images k3s-vm/openapi
	} | sort -u | wc -l)
	{
		generate_openapi
		go_build "$work/bin/kubernetes" ./cmd/k3s-vm-kubernetes -tags "$go_tags"
		ldflags="-X main.version=$version"
		go_build "$work/bin/k3s" k3s-vm/k3s
		go_build "$work/bin/images" k3s-vm/images
		go_build "$work/bin/openapi" k3s-vm/openapi
	} | count_packages "$total"
	gcc -Os -s -static -o "$work/bin/pause" build/pause/linux/pause.c
	"$work/bin/openapi" "$work/bin/kubernetes" "$work/bin"
}

# generate_openapi - makes the one generated file that Debian's source lacks. The packages are those with the tag.
generate_openapi() {
	local packages
	go_build "$work/bin/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
	packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=' cmd pkg plugin staging | sed 's,/[^/]*$,,' | sort -u |
		grep -vE '/(code-generator|sample-apiserver|sample-controller)/' |
		sed -e 's,^staging/src/,vendor/,' -e 's,^,k8s.io/kubernetes/,' | paste -sd,)
	"$work/bin/openapi-gen" --logtostderr -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi \
		-O zz_generated.openapi -h /dev/null -r "$work/openapi-violations"
}

# count_packages TOTAL - turns the names of packages on standard input into progress, and shows everything else.
count_packages() {
	local line compiled=0
	progress 0 "$1"
	while IFS= read -r line; do
		if [[ $line =~ ^[a-zA-Z0-9_./-]+$ ]]; then
			((++compiled % 10 == 0)) && progress "$compiled" "$1"
		else
			printf '%s\n' "$line"
		fi
	done
	progress "$1" "$1"
}
