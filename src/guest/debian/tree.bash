# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# shellcheck disable=SC2154 # variables of build
#
# tree.bash - turns the unpacked packages into the root folder of the guest.
#
# What maintainer scripts would do in a normal installation is done here (accounts come with
# rootfs/, alternatives, the certificate bundle, the linker's cache), and what the guest does not
# need is removed. rootfs/ is laid over the packages; `wants` lists which units start.

compose_tree() {
	local tree=$1
	prune_tree "$tree"
	cp -R --preserve=mode -- "$here/rootfs/." "$tree/"
	chmod 755 "$tree"/usr/lib/k3s-vm/* "$tree/etc/acpi/power-button"
	chmod 600 "$tree/etc/shadow"
	link_units "$tree"
	set_up_tree "$tree"
}

prune_tree() {
	local tree=$1
	(
		cd "$tree"
		# Documentation, translations, and the package manager with its database: the root is
		# read-only and comes anew with the next build.
		rm -rf usr/share/{doc,man,info,locale,lintian,bash-completion,zsh,perl,perl5,pixmaps,i18n}
		rm -rf usr/share/{debconf,bug,gcc,gdb,menu}
		rm -rf usr/share/{polkit-1,apport,initramfs-tools,binfmts,pkgconfig,sgml,xml,applications,icons}
		rm -rf usr/lib/{apt,dpkg,init,udev,lsb,sysusers.d,tmpfiles.d,kernel,python3,pcrlock.d}
		rm -rf usr/lib/{environment.d,systemd/catalog}
		rm -rf usr/lib/x86_64-linux-gnu/{perl,perl-base,perl5,gconv,krb5,audit,e2initrd_helper,systemd/boot}
		rm -rf usr/lib/x86_64-linux-gnu/libperl.so*
		rm -rf usr/bin/{perl*,apt*,dpkg*,debconf*,deb-systemd*,systemd-{dissect,hwdb,nspawn,cryptenroll,repart,sysext}}
		rm -rf usr/sbin/{dpkg*,e2scrub*,sefcontext*,update-ca-certificates,adduser,deluser}
		rm -rf var
		rm -rf etc/{init.d,rc?.d,cron*,apt,dpkg,default,logcheck,pam.d,pam.conf,security}
		rm -rf etc/{logrotate.d,xattr.conf,debconf.conf,ufw,skel,update-motd.d,motd,kernel}
		rm -rf etc/{runit,sv,insserv.conf.d,init,apparmor.d,X11,perl}
		# Only what `wants` names is started, and nothing is generated at boot.
		rm -rf usr/lib/systemd/system/*.{wants,requires}
		rm -rf etc/systemd
		rm -rf usr/lib/systemd/{system-generators,user-generators,system-preset,user-preset,user}
		rm -rf usr/lib/systemd/{system-environment-generators,user-environment-generators}
		# Each unit file is read at boot, so those stay that something can ask for.
		(
			cd usr/lib/systemd/system
			mkdir keep
			for unit in $(sed -e 's/#.*//' "$here/units"); do [[ ! -e $unit ]] || mv "$unit" keep/; done
			find . -mindepth 1 -maxdepth 1 ! -name keep -exec rm -rf {} +
			mv keep/* . && rmdir keep
		)
		# Services of systemd that this guest does without.
		rm -f usr/lib/systemd/systemd-{networkd*,resolved,timesyncd,timedated,localed,hostnamed,homed,userdbd}
		rm -f usr/lib/systemd/systemd-{userwork,importd,portabled,machined,pstore,oomd,measure,pcrphase,pcrlock}
		rm -f usr/lib/systemd/systemd-{growfs,makefs,bless-boot,boot-check-no-failures,cryptsetup,veritysetup}
		rm -f usr/lib/systemd/systemd-{integritysetup,quotacheck,fsck,vconsole-setup,rfkill,backlight}
		rm -f usr/lib/systemd/systemd-{network-generator,sysupdate,storagetm}
		rm -rf boot dev home srv media mnt/* root
		mkdir -p boot home mnt var opt/k3s usr/local/{bin,sbin} dev proc sys run tmp
		chmod 1777 tmp
	)
}

# link_units TREE - a line of `wants` is TARGET UNIT.
link_units() {
	local tree=$1 target unit folder=$1/etc/systemd/system
	while read -r target unit; do
		case $target in '' | '#'*) continue ;; esac
		[[ -e $tree/usr/lib/systemd/system/$unit || -e $folder/$unit ]] || {
			printf 'The unit %s is in no package of %s.\n' "$unit" "$suite" >&2
			return 1
		}
		mkdir -p "$folder/$target.wants"
		if [[ -e $folder/$unit ]]; then
			ln -s "../$unit" "$folder/$target.wants/$unit"
		else
			ln -s "/usr/lib/systemd/system/$unit" "$folder/$target.wants/$unit"
		fi
	done <"$here/wants"
	ln -s /usr/lib/systemd/system/multi-user.target "$folder/default.target"
}

set_up_tree() {
	local tree=$1 name
	# The program that runs the cluster expects them; Debian's alternatives would make them.
	for name in iptables ip6tables; do
		ln -sf "$name-nft" "$tree/usr/sbin/$name"
		ln -sf "$name-nft-save" "$tree/usr/sbin/$name-save"
		ln -sf "$name-nft-restore" "$tree/usr/sbin/$name-restore"
	done
	ln -sf mawk "$tree/usr/bin/awk"
	for name in vi less ping wget nc nslookup traceroute unzip xz bzip2 clear which; do
		[[ -e $tree/usr/bin/$name ]] || ln -s busybox "$tree/usr/bin/$name"
	done
	for name in poweroff reboot halt; do
		ln -s /usr/lib/k3s-vm/power "$tree/usr/local/sbin/$name"
	done

	# What has to outlive a restart is on the data disk.
	ln -s /var/lib/rancher/etc "$tree/etc/rancher"
	ln -s /var/roothome "$tree/root"
	ln -s ../proc/self/mounts "$tree/etc/mtab"
	# Empty, not absent: PID 1 writes the ID of the kernel command line into it.
	: >"$tree/etc/machine-id"

	mkdir -p "$tree/etc/ssl/certs"
	find "$tree/usr/share/ca-certificates/mozilla" -name '*.crt' -print0 | sort -z |
		xargs -0 cat >"$tree/etc/ssl/certs/ca-certificates.crt"
	ln -sf /etc/ssl/certs/ca-certificates.crt "$tree/usr/lib/ssl/cert.pem"

	# Newer OpenSSH servers slow down an address that connects and leaves without logging in, which
	# is how the program looks whether the guest is up. Older ones do not know the word.
	if grep -qai PerSourcePenalties "$tree/usr/sbin/sshd"; then
		printf 'PerSourcePenalties no\n' >>"$tree/etc/ssh/sshd_config"
	fi
	# Its own, which is linked statically: the host's may be of another format.
	"$tree/usr/sbin/ldconfig" -r "$tree"
}

make_root_image() {
	local tree=$1 image=$2
	# A fixed UUID and time: the same packages give the same image.
	mkfs.erofs --quiet -zlz4 -C65536 -T 0 -U 6b33732d-766d-4465-8269-616e726f6f74 \
		-Enoinline_data --all-root -x-1 "$image" "$tree"
	printf 'root image: %d bytes\n' "$(stat -c %s "$image")"
}

make_guest_json() {
	local tree=$1 file=$2 version
	version="Debian $(cat "$tree/etc/debian_version"), Linux $kernel_version"
	cat >"$file" <<-END
		{
		  "schema": 1,
		  "flavor": "debian",
		  "system": "x86_64-linux",
		  "version": "$version",
		  "boot": {
		    "kernel": "vmlinuz",
		    "initrd": "initrd.img",
		    "cmdline": "$(command_line)"
		  },
		  "root": { "image": "root.img", "serial": "k3s-vm-root" },
		  "data": { "serial": "k3s-vm-data", "mount": "/var" },
		  "provision": "credentials",
		  "payload": { "attach": "k3s-vm-payload" },
		  "agent": true
		}
	END
}
