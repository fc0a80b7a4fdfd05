#![allow(clippy::unwrap_used)]

use super::*;

fn machine(tee: Tee, accelerator: Accelerator, boot: Boot) -> Machine {
    Machine { tee, accelerator, memory_mib: 1024, vcpus: 2, boot, tpm: None, disk: None, orders: "/run/qmp".into() }
}

fn partition() -> Boot {
    Boot::Partition { code: "/fw/CODE.fd".into(), variables: "/s/vars.fd".into(), partition: "/s/esp".into() }
}

fn direct() -> Boot {
    let command_line = "console=ttyS0 quiet".into();
    Boot::Direct {
        firmware: "/fw/OVMF.fd".into(),
        kernel: "/s/kernel".into(),
        initrd: "/s/initrd".into(),
        command_line,
    }
}

fn check(machine: &Machine, expected: &str) {
    let found: Vec<String> = arguments(machine).into_iter().map(|one| one.into_string().unwrap()).collect();
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // One option and its value to a line, so that a difference is seen.
    let mut lines = Vec::new();
    for argument in &found {
        if argument.starts_with('-') || lines.is_empty() {
            lines.push(argument.clone());
        } else if let Some(last) = lines.last_mut() {
            *last += " ";
            *last += argument;
        }
    }
    assert_eq!(lines, expected);
}

#[test]
fn a_plain_machine_in_software_with_a_tpm_and_a_disk() {
    let mut machine = machine(Tee::None, Accelerator::Tcg, partition());
    machine.tpm = Some(TpmDevice::Emulated("/s/tpm.sock".into()));
    machine.disk = Some("/s/data,1.raw".into());
    check(
        &machine,
        "-machine q35,accel=tcg
         -cpu max
         -m 1024
         -smp 2
         -display none
         -serial stdio
         -qmp unix:/run/qmp,server=on,wait=off
         -drive if=pflash,format=raw,readonly=on,file=/fw/CODE.fd
         -drive if=pflash,format=raw,file=/s/vars.fd
         -drive file=fat:/s/esp,format=raw,if=none,readonly=on,id=image
         -device virtio-blk-pci,drive=image,bootindex=0
         -chardev socket,id=tpm,path=/s/tpm.sock
         -tpmdev emulator,id=tpm,chardev=tpm
         -device tpm-crb,tpmdev=tpm
         -drive file=/s/data,,1.raw,format=raw,if=none,id=data
         -device virtio-blk-pci,drive=data,serial=starminer-data
         -netdev user,id=net
         -device virtio-net-pci,netdev=net,romfile=
         -nodefaults
         -no-user-config
         -no-reboot",
    );
}

#[test]
fn a_plain_machine_by_the_processor_with_this_machine_s_tpm() {
    let mut machine = machine(Tee::None, Accelerator::Kvm, partition());
    machine.tpm = Some(TpmDevice::Passthrough("/dev/tpm0".into()));
    check(
        &machine,
        "-machine q35,accel=kvm
         -cpu host
         -m 1024
         -smp 2
         -display none
         -serial stdio
         -qmp unix:/run/qmp,server=on,wait=off
         -drive if=pflash,format=raw,readonly=on,file=/fw/CODE.fd
         -drive if=pflash,format=raw,file=/s/vars.fd
         -drive file=fat:/s/esp,format=raw,if=none,readonly=on,id=image
         -device virtio-blk-pci,drive=image,bootindex=0
         -tpmdev passthrough,id=tpm,path=/dev/tpm0
         -device tpm-crb,tpmdev=tpm
         -netdev user,id=net
         -device virtio-net-pci,netdev=net,romfile=
         -nodefaults
         -no-user-config
         -no-reboot",
    );
}

#[test]
fn an_snp_guest() {
    check(
        &machine(Tee::Snp { cpu: "EPYC-Genoa".into() }, Accelerator::Kvm, direct()),
        "-machine q35,accel=kvm,confidential-guest-support=tee,memory-backend=memory
         -object memory-backend-memfd,id=memory,size=1024M,share=true,prealloc=false
         -object sev-snp-guest,id=tee,cbitpos=51,reduced-phys-bits=1,kernel-hashes=on
         -cpu EPYC-Genoa
         -m 1024
         -smp 2
         -display none
         -serial stdio
         -qmp unix:/run/qmp,server=on,wait=off
         -bios /fw/OVMF.fd
         -kernel /s/kernel
         -initrd /s/initrd
         -append console=ttyS0 quiet
         -netdev user,id=net
         -device virtio-net-pci,netdev=net,romfile=,disable-legacy=on,iommu_platform=true
         -nodefaults
         -no-user-config
         -no-reboot",
    );
}

#[test]
fn a_trust_domain() {
    check(
        &machine(Tee::Tdx, Accelerator::Kvm, direct()),
        r#"-machine q35,accel=kvm,kernel-irqchip=split,confidential-guest-support=tee
         -object {"qom-type":"tdx-guest","id":"tee","quote-generation-socket":{"type":"vsock","cid":"2","port":"4050"}}
         -cpu host
         -m 1024
         -smp 2
         -display none
         -serial stdio
         -qmp unix:/run/qmp,server=on,wait=off
         -bios /fw/OVMF.fd
         -kernel /s/kernel
         -initrd /s/initrd
         -append console=ttyS0 quiet
         -netdev user,id=net
         -device virtio-net-pci,netdev=net,romfile=,disable-legacy=on,iommu_platform=true
         -nodefaults
         -no-user-config
         -no-reboot"#,
    );
}

#[test]
fn an_emulated_tpm() {
    let tpm = Tpm { state: "/s/tpm".into(), socket: "/t/control".into() };
    let found: Vec<String> = tpm_arguments(&tpm).into_iter().map(|one| one.into_string().unwrap()).collect();
    let expected =
        "socket --tpm2 --terminate --flags startup-clear --tpmstate dir=/s/tpm --ctrl type=unixio,path=/t/control";
    assert_eq!(found.join(" "), expected);
}
