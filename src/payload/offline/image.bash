# shellcheck shell=bash
# shellcheck disable=SC2154 # variables of build
#
# image.bash - packs what was compiled and fetched into the payload's image.

# The smallest that costs a start nothing: xz would be a tenth smaller, and its unpacking slows an emulated machine.
readonly compression=(-comp zstd -Xcompression-level 19 -b 1M)

pack() {
	local root=$work/root out=$work/out package plugin
	mkdir -p "$root"/{bin,lib/cni,images,systemd} "$out" "$work/debian"
	for package in containerd runc containernetworking-plugins busybox-static; do
		dpkg-deb -x "$work"/debs/"$package"_*.deb "$work/debian"
	done

	cp "$work/bin/k3s" "$root/bin/k3s"
	ln -s k3s "$root/bin/kubectl"
	ln -s k3s "$root/bin/ctr"
	cp "$work"/bin/{kubernetes,openapi.json.gz,openapi.pb.gz} "$root/lib/"
	cp "$work"/debian/usr/bin/{containerd,containerd-shim-runc-v2,ctr} "$work/debian/usr/sbin/runc" "$root/lib/"
	for plugin in bridge host-local loopback portmap; do
		cp "$work/debian/usr/lib/cni/$plugin" "$root/lib/cni/"
	done
	cp -L "$here/k3s.service" "$root/systemd/k3s.service"

	"$work/bin/images" "$out/images.tar" "$work/bin/pause" "$work/debian/bin/busybox" "$here/images/index.cgi"
	cp "$out/images.tar" "$root/images/k3s-vm.tar"
	cat >"$out/payload.json" <<-END
		{
		  "schema": 1,
		  "name": "kubernetes",
		  "version": "v$kubernetes",
		  "description": "upstream Kubernetes v$kubernetes, compiled from Debian's source (not K3s)"
		}
	END
	cp "$out/payload.json" "$root/payload.json"
	chmod -R u=rwX,go=rX "$root"
	mksquashfs "$root" "$out/payload.img" "${compression[@]}" -all-root -all-time 0 -mkfs-time 0 \
		-noappend -no-progress -no-xattrs -quiet
}
