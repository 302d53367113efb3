# Makes a service of a node, on Windows Server 2019, Windows 10, or later. Run it as an administrator, beside steward.exe:
#
#   powershell -ExecutionPolicy Bypass -File install.ps1 -NodeName ship1 -CentralNodeName central -BrokerAddress broker.example.com:4222
#
# The node runs as the account "NT SERVICE\steward", which has no other rights than those on its own folder; so do the commands that it
# runs. To take it away: Stop-Service steward; sc.exe delete steward; and remove the two folders.
param(
    [Parameter(Mandatory)] [string] $NodeName,
    [string] $CentralNodeName = 'central',
    [Parameter(Mandatory)] [string] $BrokerAddress
)
$ErrorActionPreference = 'Stop'
$program = Join-Path $env:ProgramFiles 'Steward'
$data = Join-Path $env:ProgramData 'Steward'

New-Item -ItemType Directory -Force $program, $data | Out-Null
Copy-Item -Force (Join-Path $PSScriptRoot 'steward.exe') $program

# All paths are named: a service is started in the system's own folder.
$command = '"{0}\steward.exe" "-configFolder={1}\etc" "-socketFolder={1}\tmp" "-databaseFolder={1}\lib" "-subscribersDataFolder={1}\var" "-nodeName={2}" "-centralNodeName={3}" "-brokerAddress={4}"' -f $program, $data, $NodeName, $CentralNodeName, $BrokerAddress
New-Service -Name steward -DisplayName 'Steward node' -Description 'Carries commands to and from this machine.' -BinaryPathName $command -StartupType Automatic | Out-Null
sc.exe config steward obj= 'NT SERVICE\steward' | Out-Null
# A node that ends with an error is started again, as one that crashes.
sc.exe failure steward reset= 86400 actions= restart/5000/restart/5000/restart/60000 | Out-Null
sc.exe failureflag steward 1 | Out-Null
# Its folder is for the service and for administrators.
icacls.exe $data /inheritance:r /grant 'NT SERVICE\steward:(OI)(CI)F' 'BUILTIN\Administrators:(OI)(CI)F' 'NT AUTHORITY\SYSTEM:(OI)(CI)F' | Out-Null
# Its log is in the event log, under Windows Logs, Application.
if (-not [System.Diagnostics.EventLog]::SourceExists('steward')) {
    New-EventLog -LogName Application -Source steward -MessageResourceFile "$env:SystemRoot\System32\EventCreate.exe"
}
Start-Service steward
