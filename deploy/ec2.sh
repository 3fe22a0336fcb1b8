#!/bin/bash
# User data of an EC2 instance with Amazon Linux 2023: aws ec2 run-instances … --user-data file://deploy/ec2.sh
# A security group decides who reaches port 80. TLS is the business of a load balancer in front.
set -euo pipefail
dnf install --assumeyes docker
systemctl enable --now docker
docker run --detach --name sentiment-api --restart unless-stopped --publish 80:8000 --stop-timeout 30 \
    --read-only --cap-drop ALL --security-opt no-new-privileges --log-opt max-size=50m --log-opt max-file=3 \
    --env SENTIMENT_NB_API_KEYS=DIGEST docker.io/OWNER/sentiment-api:0.1.0
