"""JQS, the JobQueryServer: GET /<view> becomes SELECT ... FROM <view>."""
