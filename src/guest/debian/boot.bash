# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # variables of build
#
# boot.bash - the kernel, its modules, the initrd and the kernel's command line.

# The kernel's command line. The program adds the host name and the machine ID.
command_line() {
	local words=(
		# Warnings and worse go to the serial log: each character costs an exit to QEMU.
		console=ttyS0 quiet loglevel=4 systemd.show_status=error
		# Under TCG the kernel finds the TSCs of the CPUs out of step and falls back to the HPET:
		# each look at the clock is then a system call and an exit to QEMU. They count the same
		# host clock, so they can be trusted. KVM guests use kvm-clock anyway.
		tsc=reliable
		# Tests of the cryptographic code at each boot: 0.4 s under TCG.
		cryptomgr.notests
		# Nobody reads an audit log here, and no security module has a policy.
		audit=0 lsm=capability
		# A kernel that has oopsed is not one to run a cluster on: it panics, pvpanic tells the
		# host, and the program restarts the VM. The second lets the message reach the log.
		oops=panic panic=1
	)
	printf '%s' "${words[*]}"
}

# unpack_kernel DEBS KERNEL - sets kernel_version.
unpack_kernel() {
	local debs=$1 kernel=$2 deb
	deb=$(find "$debs" -name 'linux-image-*.deb' -print -quit)
	[[ -n $deb ]] || {
		printf 'apt fetched no kernel package.\n' >&2
		return 1
	}
	mkdir -p "$kernel"
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$kernel" --exclude='./usr/share'
	# From trixie on, modules are in /usr/lib.
	if [[ ! -d $kernel/lib ]]; then ln -s usr/lib "$kernel/lib"; fi
	kernel_version=$(cd "$kernel/lib/modules" && echo *)
	# Newer kernels come with compressed modules. erofs compresses the root again, and the
	# initrd's insmod wants plain ones.
	find "$kernel/lib/modules/" -name '*.ko.xz' -exec xz -d -- {} +
	find "$kernel/lib/modules/" -name '*.ko.zst' -exec zstd -q -d --rm -- {} +
	strip_signatures "$kernel/lib/modules/"
	depmod "$kernel"
}

# strip_signatures FOLDER - cuts off the signatures of the modules. The kernel need not check what
# came from a signed package into a read-only image, and under TCG the check takes most of the time
# that loading takes: 1.5 s for xfs.ko. The price is one warning and the taint flag E.
# A signed file ends with the signature, 12 bytes whose last four are its length (big-endian), and a
# line of 28 bytes.
strip_signatures() {
	local length
	find "$1" -name '*.ko' -printf '%p\n' | sort >"$work/modules.signed"
	xargs -d '\n' tail -q -c 40 <"$work/modules.signed" | od -An -v -w40 -tu1 |
		awk '{ print $16 == 117 && $13 == 126 && $39 == 126 ? (($9 * 256 + $10) * 256 + $11) * 256 + $12 + 40 : 0 }' |
		paste -d ' ' - "$work/modules.signed" >"$work/modules.lengths"
	for length in $(cut -d ' ' -f 1 "$work/modules.lengths" | sort -u); do
		((length == 0)) || sed -n "s/^$length //p" "$work/modules.lengths" |
			xargs -d '\n' truncate -s "-$length" --
	done
}

# depmod FOLDER - the guest's own one, which suits the guest's modprobe. The host may have none.
depmod() {
	local lib=$work/tree/usr/lib
	"$lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" --library-path "$lib/x86_64-linux-gnu" --argv0 depmod \
		"$work/tree/usr/bin/kmod" -b "$1" "$kernel_version"
}

# module_closure FOLDER - reads patterns (paths without "kernel/", without ".ko"; * matches
# anything) and prints the modules that match and those they need, each after its needs.
module_closure() {
	awk -v dep="$1/modules.dep" '
	function visit(path,   need, n, i) {
		if (path in done) return
		done[path] = 1
		n = split(needs[path], need, " ")
		for (i = n; i >= 1; i--) visit(need[i])
		print path
	}
	BEGIN {
		while ((getline line < dep) > 0) {
			path = line; sub(/:.*/, "", path)
			rest = line; sub(/^[^:]*:[ ]*/, "", rest)
			order[++count] = path; needs[path] = rest
		}
	}
	/^#/ || NF == 0 { next }
	{
		pattern = $1; gsub(/[.+]/, "\\\\&", pattern); gsub(/\*/, ".*", pattern)
		found = 0
		for (i = 1; i <= count; i++) if (order[i] ~ ("^kernel/" pattern "\\.ko$")) { visit(order[i]); found = 1 }
		# Built into this kernel, or gone: `modules` says which ones the guest cannot do without.
		if (!found) print "no module matches " $1 > "/dev/stderr"
	}'
}

add_modules() {
	local kernel=$1/lib/modules/$kernel_version tree=$2 target=$2/usr/lib/modules/$kernel_version
	mkdir -p "$target"
	module_closure "$kernel" <"$here/modules" >"$work/modules"
	(cd "$kernel" && xargs cp --parents -t "$target" -- modules.order modules.builtin modules.builtin.modinfo <"$work/modules")
	depmod "$tree"
	printf '%d kernel modules\n' "$(wc -l <"$work/modules")"
}

# make_kernel KERNEL FILE - the kernel unpacked, in ELF form, which QEMU starts by its PVH entry:
# unpacking it under TCG takes 0.3 s at each boot. Where that is not possible, the kernel as packed.
make_kernel() {
	local image=$1/boot/vmlinuz-$kernel_version file=$2 setup offset length magic
	if grep -q '^CONFIG_PVH=y' "$1/boot/config-$kernel_version"; then
		# Fields of the boot protocol: setup_sects, payload_offset, payload_length. The payload
		# ends with its unpacked size, which is not part of the compressed stream.
		setup=$(number "$image" $((0x1f1)) 1)
		offset=$(number "$image" $((0x248)) 4)
		length=$(number "$image" $((0x24c)) 4)
		dd if="$image" of="$work/payload" bs=1M iflag=skip_bytes,count_bytes status=none \
			skip="$(((setup + 1) * 512 + offset))" count="$((length - 4))"
		magic=$(od -An -tx1 -N 4 "$work/payload" | tr -d ' ')
		case $magic in
		02214c18) lz4 -q -d -c "$work/payload" >"$file" || true ;;
		fd377a58) xz -d -c "$work/payload" >"$file" || true ;;
		28b52ffd) zstd -q -d -c "$work/payload" >"$file" || true ;;
		1f8b*) gzip -d -c "$work/payload" >"$file" || true ;;
		esac
		rm -f "$work/payload"
		if [[ $(head -c 4 "$file" 2>/dev/null | tr -d '\0') == $'\x7fELF' ]]; then return; fi
		printf 'The kernel could not be unpacked (%s): it is used as it is.\n' "$magic"
	fi
	cp -- "$image" "$file"
}

number() {
	od -An -tu"$3" -j "$2" -N "$3" "$1" | tr -d ' '
}

# make_initrd TREE FOLDER FILE - busybox, the modules that the root needs, and init.
# It is not compressed: unpacking takes longer under TCG than reading.
make_initrd() {
	local tree=$1 folder=$2 file=$3 source=$1/usr/lib/modules/$kernel_version
	local modules=$folder/lib/modules/$kernel_version
	mkdir -p "$folder"/{bin,dev,proc,sys,run,lower,upper,root} "$modules"
	cp "$tree/usr/bin/busybox" "$folder/bin/busybox"
	cp "$here/init" "$folder/init"
	chmod 755 "$folder/init" "$folder/bin/busybox"
	cat >"$folder/fstab" <<-END
		proc /proc proc defaults
		sysfs /sys sysfs defaults
		dev /dev devtmpfs defaults
		run /run tmpfs nosuid,nodev,mode=755
		upper /upper tmpfs mode=755
	END
	cat >"$folder/fstab.move" <<-END
		/dev /root/dev none move
		/sys /root/sys none move
		/run /root/run none move
		/proc /root/proc none move
	END
	module_closure "$source" <"$here/modules.initrd" >"$work/modules.initrd"
	(cd "$source" && xargs cp --parents -t "$modules" <"$work/modules.initrd")
	depmod "$folder" 2>/dev/null
	# The tables that busybox does not read.
	rm -f "$modules"/modules.{*.bin,alias,softdep,symbols,devname,builtin*}
	(cd "$folder" && find . -exec touch -h -d @0 {} + && find . | sort |
		cpio --quiet -o -H newc -R 0:0 --reproducible) >"$file"
}
